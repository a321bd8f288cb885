"""What people look at: tables, figures, the model card, the report."""
