"""How good and how fast the restoration is: measures, test sets, tables, pictures, the demo."""
