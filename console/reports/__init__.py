"""What people look at after a run: one page that needs no network, and the words and pictures on it.

Nothing is imported here: the words alone are used where simulations, and all that these bring, are not installed.
"""
