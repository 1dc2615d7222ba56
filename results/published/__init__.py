"""What papers and their repositories report, as CSV; installed as `mimbench_published`, read by `mimbench table`."""
