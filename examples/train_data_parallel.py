"""
One model over two processes
============================

A large batch is shared out between processes, on one machine or several, and the updates are those of one process with
the whole batch. torch's own launcher starts the processes::

    torchrun --nproc_per_node 2 examples/train_data_parallel.py
    python examples/train_data_parallel.py      # the same batches in one process, to compare with

On a CPU set ``OMP_NUM_THREADS`` to the cores of the machine divided by the processes. Where gloo does not find its
network interface, ``GLOO_SOCKET_IFNAME=lo`` names that of a single machine. With GPUs every process takes its own.
"""

import argparse
import time

from sklearn.datasets import load_digits
from torch import distributed

from sklgap import LBGapClassifier
from sklgap.metrics import generalization_gap_score

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--quick", action="store_true", help="five epochs instead of fifty")
parser.add_argument(
    "--width", type=int, default=128, help="units of a layer (default: 128)"
)
parser.add_argument(
    "--batch-size", type=float, default=0.1, help="fraction of the rows (default: 0.1)"
)
arguments = parser.parse_args()

# %%
# Every process runs the whole script. Which of them it is, torchrun says; without torchrun there is only one.
launched = distributed.is_torchelastic_launched()
if launched:
    distributed.init_process_group()
first = not launched or distributed.get_rank() == 0

# %%
# All processes have all the data and the same parameters; nothing else differs from a fit in one process. Without batch
# norm both give the same weights but for rounding; the nets of the papers have it, and it sees each share on its own.
X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = X[:1400] / 16, X[1400:] / 16, y[:1400], y[1400:]
model = LBGapClassifier(
    module__width=arguments.width,
    batch_size=arguments.batch_size,
    max_epochs=5 if arguments.quick else 50,
    tol=None,
    random_state=0,
    data_parallel=launched,
)
started = time.perf_counter()
model.fit(X, y)
seconds = time.perf_counter() - started

# %%
# The fitted models are equal in all processes, so one of them prints.
if first:
    n_processes = distributed.get_world_size() if launched else 1
    print(
        f"{n_processes} process(es), batches of {model.history_[-1, 'batch_size']} rows, {model.n_updates_} updates"
    )
    print(f"training loss  {model.train_loss_:.6f}")
    print(f"test accuracy  {100 * model.score(X_test, y_test):.2f} %")
    print(
        f"train-test gap {100 * generalization_gap_score(model, X_test, y_test):.2f} %"
    )
    print(f"seconds        {seconds:.1f}")
if launched:
    distributed.destroy_process_group()
