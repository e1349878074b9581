import subprocess
import sys
from pathlib import Path

HEAVY = ("accelerate", "datasets", "omegaconf", "tensorboard", "torchmetrics", "sklearn", "pandas", "torchvision")


def test_importing_training_imports_none_of_its_extras() -> None:
    script = f"import leanconv.training, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['omegaconf'] = sys.modules['accelerate'] = None\n"
        "from leanconv.training import load_recipe, train\n"
        "from leanconv.errors import UserError\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from toy_images import toy_data, toy_net\n"
        "for call in (load_recipe, lambda: train(toy_net(), toy_data())):\n"
        "    try: call()\n"
        "    except UserError as error: print(error)\n"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ['Training needs the "train" extra: pip install "leanconv[train]"'] * 2
