"""Subrequests: one request made of several. subrequest.py starts them, postpone.py puts their output in order."""
