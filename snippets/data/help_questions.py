"""Thirty questions about Python, each with the help topics that answer it; written before any search was run.

They avoid the topics' own names where a person would not know them. No tensors here.
"""

QUESTIONS = [
    ("How do I stop a program if a condition that I believe in turns out to be false?", {"assert"}),
    ("Can I unpack a list into several variables in one line?", {"assignment"}),
    ("How do I write a coroutine?", {"async"}),
    ("Why is a name with two leading underscores renamed inside of a class?", {"atom-identifiers"}),
    ("How can I compute a value each time somebody reads a missing attribute?", {"attribute-access"}),
    ("What does the percent sign do between two numbers?", {"binary"}),
    ("How can I flip single bits, or combine two bit patterns?", {"bitwise"}),
    ("What are the three dots good for?", {"bltin-ellipsis-object"}),
    ("What does a function give back that has no result?", {"bltin-null-object"}),
    ("Does `a and b` evaluate b when a is false?", {"booleans"}),
    ("How can I leave a loop early?", {"break"}),
    ("How are default values and extra keyword arguments handed to a function?", {"calls", "compound"}),
    ("Is 1 < x < 10 allowed, and what does it mean?", {"comparisons"}),
    ("How do I make an object that cleans up after a with block?", {"context-managers"}),
    ("How can I jump to the next round of a loop?", {"continue"}),
    ("Which method is called when an object is about to be destroyed?", {"customization", "specialnames"}),
    ("How do I step through my program line by line and look at its variables?", {"debugger"}),
    ("How can I remove a variable so that it no longer exists?", {"del"}),
    ("What happens when an error is caught nowhere?", {"exceptions"}),
    (
        "How do I print a number with two digits after the point and commas between thousands?",
        {"formatstrings"},
    ),
    ("How can a function change a variable of its module?", {"global"}),
    ("Which words may I not use as names?", {"identifiers"}),
    ("How do I write a complex number?", {"imaginary"}),
    ("How do I use code from another file by a shorter name?", {"import"}),
    ("How can I write a small function without a name?", {"lambda"}),
    ("How does an inner function change a variable of the function around it?", {"nonlocal"}),
    ("Which is computed first, a product or a comparison?", {"operator-summary"}),
    ("Is a minus sign before a number stronger than an exponent?", {"power"}),
    ("How do I say that one error was caused by another one?", {"raise"}),
    ("How can I make a function that hands out values one at a time?", {"yield"}),
]
