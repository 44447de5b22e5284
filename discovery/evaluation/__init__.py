"""How good an objective is: protocol, tables, statistics, figures."""
