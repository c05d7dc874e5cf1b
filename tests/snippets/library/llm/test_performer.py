"""The lines with performer-pytorch give what the page's own code gives, and its defaults do not."""

import inspect

import performer_pytorch.performer_pytorch as library
import pytest
import torch

from snippets.library.llm.performer import attention_by_library
from snippets.llm.performer import PositiveFeatures, linear_attention, orthogonal_rows


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64)
    key = torch.randn(2, 3, 9, 6, generator=generator, dtype=torch.float64)
    value = torch.randn(2, 3, 9, 5, generator=generator, dtype=torch.float64)
    return query, key, value, orthogonal_rows(14, 6, generator).double()


@pytest.mark.claim("performer-library")
def test_the_same_means(given, agrees):
    query, key, value, omega = given
    theirs = attention_by_library(query, key, value, omega)
    ours = linear_attention(PositiveFeatures(omega), query, key, value)
    agrees(ours, theirs, "performer_pytorch.performer_pytorch.linear_attention", 1e-10)
    phi_q, phi_k = (
        library.softmax_kernel(x, projection_matrix=omega, is_query=flag) for x, flag in ((query, True), (key, False))
    )
    usual = library.linear_attention(phi_q, phi_k, value)  # with the library's own eps
    assert (ours - usual).abs().max() > 1e-5
    assert inspect.signature(library.softmax_kernel).parameters["eps"].default == 1e-4
