"""What training minimises: of frames and clips pure functions and thin modules over them, of events a set criterion.

The set criterion comes with its matcher and with its targets, the events of a batch.
"""
