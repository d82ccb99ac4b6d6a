"""A small ViT and a small ResNet of Hugging Face, trained a little on the digits, as folders for the command
line.

    python docs/huggingface.py            # makes vit/ and resnet/, in a minute on 2 cores
    suture compare hf:vit hf:resnet --data digits --methods dm --out vit-resnet
    suture compare hf:resnet hf:vit --data digits --methods dm --out resnet-vit
"""

from __future__ import annotations

import torch
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from suture import zoo

EPOCHS = {"vit": 20, "resnet": 8}


def networks() -> dict[str, torch.nn.Module]:
    """Both, with random weights from seed 0."""
    torch.manual_seed(0)
    vit = ViTConfig(hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96,
                    image_size=8, patch_size=2, num_channels=1, num_labels=10)
    resnet = ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 2, 2],
                          layer_type="basic", downsample_in_first_stage=False, num_labels=10)
    return {"vit": ViTForImageClassification(vit), "resnet": ResNetForImageClassification(resnet)}


def main() -> None:
    """Train and save."""
    train, test = zoo.digits("train"), zoo.digits("test")
    for name, network in networks().items():
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        network.train()
        for epoch in range(EPOCHS[name]):
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(64):
                loss = network(pixel_values=train.inputs[rows], labels=train.labels[rows]).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        network.eval()
        with torch.no_grad():
            right = (network(test.inputs).logits.argmax(1) == test.labels).double().mean()
        network.save_pretrained(name)
        print(f"{name}: {right:.3f} of {len(test)} test images right")


if __name__ == "__main__":
    main()
