"""The shipped example: UCI Heart Disease, four hospitals, with its contract and its credit (CREDIT.md)."""

from pathlib import Path

FOLDER = Path(__file__).parent
CONTRACT = FOLDER / "contract.yaml"
CREDIT = (
    "Data: UCI Heart Disease by Janosi, Steinbrunn, Pfisterer and Detrano (1988), "
    "UCI Machine Learning Repository, doi 10.24432/C52P4X, CC BY 4.0."
)
HOSPITALS = {name: FOLDER / f"{name}.csv" for name in ("cleveland", "budapest", "long-beach", "zurich")}
