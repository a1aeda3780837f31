"""`python -m charts.monitoring` writes the charts' dashboards and rules anew."""

from charts.monitoring import files

if __name__ == "__main__":
    for path, text in files.all_of_them().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(files.ROOT))
