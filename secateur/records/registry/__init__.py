"""The registry, a git repository with DVC: its versions, what they were made from, and what can be done with them."""
