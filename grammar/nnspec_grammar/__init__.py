"""The grammar of the .nn language and its standard library, as packaged data."""
