"""The wire: what ``POST /adetailer`` accepts and answers."""
