"""Pictures of objects and segments, drawn with antialiasing at a size at which text is legible."""
