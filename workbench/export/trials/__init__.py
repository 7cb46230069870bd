"""What is tried on finished graphs: they are compared with torch, and a learning rate is found."""
