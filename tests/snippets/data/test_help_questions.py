"""Thirty questions, each with topics of Python's help that exist."""

from pydoc_data.topics import topics

from snippets.data.help_questions import QUESTIONS


def test_thirty_questions_with_topics_of_pythons_help():
    asked = [question for question, _ in QUESTIONS]
    assert len(set(asked)) == len(asked) == 30 and all(question.endswith("?") for question in asked)
    unknown = {topic for _, right in QUESTIONS for topic in right} - topics.keys()
    assert not unknown and all(right for _, right in QUESTIONS)
