"""
One model over two processes
============================

Several processes, on one machine or more, can share each large batch. The updates are
those of one process with the whole batch. The launcher of torch starts the processes.
The second command trains with the same batches in one process, for comparison::

    torchrun --nproc_per_node 2 examples/train_data_parallel.py
    python examples/train_data_parallel.py

On a CPU, set ``OMP_NUM_THREADS`` to the number of cores divided by the number of
processes. If gloo does not find the network interface of a single machine, set
``GLOO_SOCKET_IFNAME=lo``. With GPUs, every process uses a different one.
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
parser.add_argument(
    "--quick", action="store_true", help="train five epochs instead of fifty"
)
parser.add_argument(
    "--width", type=int, default=128, help="units of each layer (default: 128)"
)
parser.add_argument(
    "--batch-size",
    type=float,
    default=0.1,
    help="batch size as a fraction of the samples (default: 0.1)",
)
arguments = parser.parse_args()

# %%
# Every process runs the whole script. With torchrun, each process has a rank. Without
# torchrun there is only one process.
launched = distributed.is_torchelastic_launched()
if launched:
    distributed.init_process_group()
first = not launched or distributed.get_rank() == 0

# %%
# All processes have all data and the same parameters. The only change to a fit in one
# process is ``data_parallel``. Without batch norm, both fits give the same weights up
# to rounding. The nets of the papers have batch norm, which normalises the share of
# each process separately.
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
# The fitted models are equal in all processes, so only one process prints.
if first:
    n_processes = distributed.get_world_size() if launched else 1
    print(
        f"{n_processes} process(es), batch size {model.history_[-1, 'batch_size']}, "
        f"{model.n_updates_} updates"
    )
    print(f"training loss  {model.train_loss_:.6f}")
    print(f"test accuracy  {100 * model.score(X_test, y_test):.2f} %")
    print(
        f"train-test gap {100 * generalization_gap_score(model, X_test, y_test):.2f} %"
    )
    print(f"seconds        {seconds:.1f}")
if launched:
    distributed.destroy_process_group()
