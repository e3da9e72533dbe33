"""What people see: tables, notices, statistics lines. Knows no model."""
