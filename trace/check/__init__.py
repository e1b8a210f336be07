"""What must hold in every trace, and each violation with its line."""
