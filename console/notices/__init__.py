"""What people must hear of without looking: what (``watching``), on which way (``channels``), and once only."""
