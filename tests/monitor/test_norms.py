import pytest
import torch

from sklgap.monitor._norms import dense, squared_norm, squared_norms


@pytest.mark.parametrize("shape", [(1,), (), (4095,), (65536,), (300, 400), (3, 32768)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_squared_norms(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-6, 1.0, 1e6):
        vector = (scale * torch.randn(shape, generator=generator)).to(dtype)
        for v in (vector, vector.transpose(0, -1) if vector.ndim > 1 else vector[None]):
            expected = float(vector.double().square().sum())
            found = squared_norm(v, None)
            assert found.dtype == torch.float64
            assert float(found) == pytest.approx(expected, rel=5e-8 if len(v.flatten()) >= 65536 else 1e-12)
            weighted = squared_norm(v, torch.full_like(v, 2.0, dtype=torch.float64))
            assert float(weighted) == pytest.approx(2 * expected, rel=1e-12)


def test_norms_of_any_layout_and_type():
    sparse = torch.tensor([[0.0, 3.0], [0.0, 4.0]]).to_sparse()
    vectors = [sparse, torch.tensor([3 + 4j]), torch.tensor([1.0, 2.0])]
    weights = [None, None, torch.tensor([10.0, 0.5], dtype=torch.float64)]
    assert squared_norms(vectors, weights).tolist() == [25.0, 25.0, 12.0]
    for vector in vectors:
        found = dense(vector, vector)
        assert found.dtype == torch.float32
        assert found.layout == torch.strided
        assert float(found.square().sum()) == pytest.approx(float(squared_norm(vector, None)))


def test_half_precision_is_widened():
    found = dense(torch.full((3,), 300.0, dtype=torch.float16), torch.zeros(3, dtype=torch.float16))
    assert found.dtype == torch.float64
    assert float(found.square().sum()) == 270000.0  # more than float16 holds
