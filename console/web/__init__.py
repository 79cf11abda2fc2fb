"""The pages in a browser: what an officer reads and signs, what IT and auditors see, what a coordinator runs."""
