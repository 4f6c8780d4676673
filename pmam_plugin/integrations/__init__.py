"""Doors into other frameworks, one module each; a module here may import the framework it is named after."""
