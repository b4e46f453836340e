"""What is measured, in which order: plans of points, from the shapes of models."""
