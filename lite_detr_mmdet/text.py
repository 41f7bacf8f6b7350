"""Text that comes from files of strangers, as messages show it."""


def printable(text: object) -> str:
    """The text without characters that steer a terminal, such as escape sequences; line ends stay.

    Args:
        text (object): A text, or what becomes one.
    """
    return ''.join(letter if letter.isprintable() or letter == '\n' else '\ufffd' for letter in str(text))
