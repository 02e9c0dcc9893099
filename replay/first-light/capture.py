"""A small PyTorch program to be recorded: twenty passes through a perceptron of four layers."""

import torch

layers = [torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU()) for _ in range(4)]
model = torch.nn.Sequential(*layers).cuda()
x = torch.randn(8, 512, device="cuda")
with torch.no_grad():
    for _ in range(20):
        model(x)
torch.cuda.synchronize()
