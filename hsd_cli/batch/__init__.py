"""Many texts in one run: JSONL records that can be resumed, and files one by one."""
