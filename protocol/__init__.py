"""What crosses a trust boundary, as values and bytes."""
