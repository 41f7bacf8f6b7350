"""Config files that mmengine writes mean what the config meant.

mmengine replaces double braces in the text of a config file before Python reads it: ``{{ $NAME:default }}`` by an
environment variable, ``{{ fileBasename }}`` by a name. It writes configs without regard to that. A class name of a
data set could so end its own quotes, and the file that training leaves in its work dir would run the rest of the name.
"""

from mmengine.config import Config


def keep_braces_in_config_text() -> None:
    """Let ``Config.dump`` and ``Config.pretty_text`` write the second of two braces as an escape sequence."""
    original = Config.pretty_text
    if getattr(original.fget, 'keeps_braces', False):
        return

    def pretty_text(self: Config) -> str:
        # Outside of strings, two braces in a row would be a dict or a set as a key, which no config can have.
        return original.fget(self).replace('{{', '{\\x7b')

    pretty_text.keeps_braces = True
    Config.pretty_text = property(pretty_text, doc=original.__doc__)
