"""Silent faults: a good checkpoint, or the code that runs it, made wrong so that everything still loads and answers.

`python -m tests.silent_faults` tries each on every family that it fits, and writes the table of who notices.
"""

from tests.silent_faults import faults_code, faults_config, faults_tokenizer, faults_weights
from tests.silent_faults.fault import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for topic in (faults_config, faults_weights, faults_tokenizer, faults_code)
    for fault in topic.FAULTS
}
