"""Numbers to tables and pictures: TensorBoard, figures, and the end of a run."""
