// The notebook's net with PyTorch's C++ frontend: forward, backward and a step of SGD, as often as the first argument
// says. It prints the last loss and records nothing.

#include <torch/torch.h>

#include <cstdlib>
#include <iostream>

struct ThreeLayerNet : torch::nn::Module {
    torch::nn::Linear fc1, fc2, fc3;

    ThreeLayerNet()
        : fc1(register_module("fc1", torch::nn::Linear(2, 2))),
          fc2(register_module("fc2", torch::nn::Linear(2, 3))),
          fc3(register_module("fc3", torch::nn::Linear(3, 1))) {
        const auto set = [](torch::nn::Linear& fc, const torch::Tensor& weight) {
            const torch::NoGradGuard no_grad;
            fc->weight.copy_(weight);
            fc->bias.zero_();
        };
        set(fc1, torch::tensor({{1., 0.}, {0., 1.}}));
        set(fc2, torch::tensor({{1., 1.}, {-1., 1.}, {1., 0.}}));
        set(fc3, torch::tensor({{1., -1., 0.}}));
    }

    torch::Tensor forward(const torch::Tensor& x) {
        const auto hidden = torch::relu(fc2(torch::relu(fc1(x))));
        return torch::sigmoid(fc3(hidden));
    }
};

int main(int, char** arguments) {
    ThreeLayerNet net;
    torch::optim::SGD optimizer(net.parameters(), 0.1);
    const auto x = torch::tensor({{1.f, -1.f}}).requires_grad_();
    const auto y = torch::tensor({{0.f}});
    torch::Tensor loss;
    for (int left = std::atoi(arguments[1]); left > 0; --left) {
        optimizer.zero_grad();
        loss = torch::binary_cross_entropy(net.forward(x), y);
        loss.backward();
        optimizer.step();
    }
    std::cout << loss.item<float>() << "\n";
}
