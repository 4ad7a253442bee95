"""What makes a run cheaper without being asked twice: stored answers, cheaper models, shorter conversations. Opt-in."""
