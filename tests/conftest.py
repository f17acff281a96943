"What `make faults` counts: tests say with `record_property` how many faults of a kind they tried; those that passed are added up."
import csv, os
from collections import Counter

tried = Counter()
os.environ.setdefault('EMONB_WORKERS', '1') # the tests' trainings are too small for more processes

def pytest_runtest_logreport(report):
    if report.when == 'call' and report.passed: tried.update(dict(report.user_properties))

def pytest_terminal_summary(terminalreporter):
    if not (file := os.environ.get('EMONB_FAULTS')): return
    for fault, times in tried.items(): terminalreporter.write_line(f'{times:5} {fault}')
    with open(file, 'w', newline='', encoding='utf-8') as out: csv.writer(out).writerows([('fault', 'tried'), *tried.items()])
