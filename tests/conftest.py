"""What `make faults` counts: `@pytest.mark.fault('a full disk', 3)` says that a test tries that three times (where no number stands, once);
what is known only while it runs is said with `record_property`. Those of tests that passed are added up."""
import csv, os
from collections import Counter

tried = Counter()
os.environ.setdefault('EMONB_WORKERS', '1') # the tests' trainings are too small for more processes

def pytest_configure(config): config.addinivalue_line('markers', 'fault(kind, times=1): does what goes wrong in real life, so many times')

def pytest_runtest_call(item):
    for mark in item.iter_markers('fault'): item.user_properties.append((mark.args + (1,))[:2])

def pytest_runtest_logreport(report):
    if report.when == 'call' and report.passed:
        for fault, times in report.user_properties: tried[fault] += times

def pytest_terminal_summary(terminalreporter):
    if not (file := os.environ.get('EMONB_FAULTS')): return
    for fault, times in tried.items(): terminalreporter.write_line(f'{times:5} {fault}')
    with open(file, 'w', newline='', encoding='utf-8') as out: csv.writer(out).writerows([('fault', 'tried'), *tried.items()])
