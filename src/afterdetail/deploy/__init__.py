"""Beyond one machine: the server and its engines as processes of a Ray cluster (extra ``ray``)."""
