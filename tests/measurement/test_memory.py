"""Peak memory, against the tensors that must be alive at the worst moment."""

import pytest
import torch
from torch import Tensor, nn

from leanconv.measurement import peak_memory
from leanconv.measurement.memory import LiveMemoryMode, resident_tensors, storage_bytes

# Bytes of a float32 tensor with one channel.
PLANE = 4 * 6 * 8


def conv(a: int, b: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 1, bias=False)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class Hoarder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [conv(2, 2), conv(2, 2)]
        self.convs = nn.ModuleList(self.kept)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [layer(x) for layer in self.convs]
        return outputs[0] + outputs[1]


@pytest.mark.parametrize(
    ("network", "planes"),
    [
        (conv(2, 5), 2 + 5),
        # The caller holds the input; the first output goes once the third is made.
        (nn.Sequential(conv(2, 5), conv(5, 7), conv(7, 3)), 2 + 5 + 7),
        (nn.Sequential(conv(2, 5), conv(5, 2), conv(2, 9)), 2 + 2 + 9),
        (nn.Sequential(conv(2, 5), nn.ReLU(inplace=True)), 2 + 5),
        (nn.Sequential(conv(2, 5), nn.ReLU()), 2 + 5 + 5),
        (nn.Sequential(conv(2, 5), nn.Flatten(), nn.Unflatten(1, (5, 6, 8)), conv(5, 1)), 2 + 5 + 1),
        # Inside the sum: the block's input (not the network's), its branch and the result.
        (nn.Sequential(conv(2, 5), Residual(nn.Sequential(conv(5, 3), conv(3, 5)))), 2 + 5 + 5 + 5),
        (Hoarder(), 2 + 2 + 2 + 2),
    ],
)
def test_activations(network: nn.Module, planes: int) -> None:
    assert peak_memory(network, (1, 2, 6, 8)) == storage_bytes(network.parameters()) + planes * PLANE


def test_real_tensors_are_as_many_bytes_as_those_without_data() -> None:
    network = nn.Sequential(
        conv(2, 8), nn.BatchNorm2d(8), nn.ReLU(), Residual(conv(8, 8)), nn.ChannelShuffle(4), nn.MaxPool2d(2)
    ).eval()
    x = torch.zeros(1, 2, 6, 8)
    with torch.no_grad(), LiveMemoryMode(resident_tensors(network, [x])) as memory:
        y = network(x)
    assert memory.peak == peak_memory(network, example=x)
    resident = storage_bytes(resident_tensors(network, [x]))
    assert memory.live == resident + storage_bytes([y])
    del y
    assert memory.live == resident


def test_shared_storage_counts_once() -> None:
    flat = torch.zeros(10)
    assert storage_bytes([flat, flat[:5].view(5, 1), flat.clone()]) == 80


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_allocator_agrees_up_to_rounding_and_workspace() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh()).cuda()
    occupied = torch.empty(2**22, device="cuda")
    # 16 MiB a tensor: rounding of single blocks is small beside it.
    x = torch.zeros(1, 4, 1024, 1024, device="cuda")
    assert peak_memory(network, example=x) == pytest.approx(3 * storage_bytes([x]), rel=0.01)
    del occupied
