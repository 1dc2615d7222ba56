"""`mimbench doctor`."""

from __future__ import annotations


def test_doctor_reports_packages(quick):
    doctor = quick("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "mmcv" in doctor.stdout
    assert "torch" in doctor.stdout
