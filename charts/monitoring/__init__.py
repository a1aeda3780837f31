"""Dashboards and alert rules, written here for the charts; `python -m charts.monitoring` writes the files."""
