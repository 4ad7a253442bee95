"""What providers' answers and streams tell: usage, model, and what came of those that were left."""
