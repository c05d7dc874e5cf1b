def live(given: dict) -> dict:
    """A text's words corrupted and rebuilt by the page's functions."""
    words, marks = given["text"].split(), [f"<{number}>" for number in range(100)]
    try:
        mask = noise_mask(len(words), given["density"], given["span"], random.Random(given["seed"]))
        source, target = corrupt(words, mask, marks)
        return {"source": source, "target": target, "whole": rebuild(source, target, marks), "mask": mask}
    except ValueError as error:
        return {"error": str(error)}
