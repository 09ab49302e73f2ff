"""What kind of task a request is, how urgent it is, and until when its answer is wanted."""
