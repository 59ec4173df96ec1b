"""What is found out about a trained model before its compression is searched, and how candidates are judged by it."""
