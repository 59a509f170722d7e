"""The page for people, at ``/ui`` of the server: Gradio, the extra ``[ui]``.

It has no engine and no limits of its own: its work goes through the server's service, as that of
``POST /adetailer`` does. Nothing on it comes from another host.
"""
