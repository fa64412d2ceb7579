"""Reports: tables and pictures made from results."""
