"""How fast and how large: every figure the documentation quotes is taken here."""

from afterdetail.config import let_threads_rest

let_threads_rest()  # as the command line does
