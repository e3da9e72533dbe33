"""What `hsd doctor` looks at. Libraries are imported where they are examined: a broken one must not hide the rest."""
