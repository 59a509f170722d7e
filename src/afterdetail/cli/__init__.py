"""The command line: ``afterdetail detail``, ``detect``, ``serve`` and ``models``.

torch and the models are imported when work starts, so that help and errors come at once.
"""
