"""What `first_mismatch` is made of: corresponding points of two models, evidence, marks and causes."""
