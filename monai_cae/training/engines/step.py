"""What a trainer does with a batch: on CUDA, forward, loss, backward and optimizer as one graph per shape of batch; or
gradients of several batches that make one step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import distributed, nn
from torch.optim import Optimizer

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.reconstruction import each_tensor
from monai_cae.training.engines.cuda_graphs import CudaGraphs, Outputs, Work
from monai_cae.training.engines.inferers import check_compile
from monai_cae.training.engines.memory import filled

WARM_UP = 3  # ordinary steps before a shape is recorded, as in PyTorch's examples; they train like all others
_MOST_SHAPES = 8
_BETWEEN = (IterationEvents.FORWARD_COMPLETED, IterationEvents.LOSS_COMPLETED, IterationEvents.BACKWARD_COMPLETED)


class TrainingStep:
    """`iteration_update` of one MONAI SupervisedTrainer: its own steps, or the same recorded as CUDA graphs.

    A step is hundreds of kernels, which Python starts more slowly than a fast GPU does them; a recorded step starts at
    once. `prepare_batch` and the handlers of an iteration run as always. No handler can run between the parts of a
    recorded step, and Python code in network, inferer and loss runs only until it is recorded.

    Learning rates become tensors of float32, which schedulers fill; the trainer's own steps have them in float64, so
    the last bit may differ. Steps are recorded again when they no longer fit: parameters, statistics or an optimizer's
    state lie elsewhere (looked at before every epoch), or its other options have changed.

    Where the trainer has `accumulation_steps`, gradients of so many batches are added up for a step, and nothing is
    recorded. Every image counts the same, as in one batch of them all, also in an epoch's last group and last batch,
    which may be smaller; MONAI's own steps divide each batch's by `accumulation_steps` there too.

    Args:
        compile: "graph"; "auto" and "inductor" for the same where the device has graphs, and the trainer's own steps,
            with one printed line, where a step can't be recorded; "off" for these alone.
        device: of the trainer.

    Raises:
        MonaiCaeError: an unknown `compile`, or "graph" on a device without graphs or in one of several processes.
    """

    def __init__(self, compile: str = "auto", device: str | torch.device = "cpu") -> None:
        check_compile(compile)
        self.compile = compile
        self.device = torch.device(device)
        usable, several = CudaGraphs.usable(self.device), distributed.is_initialized()
        if compile == "graph" and (several or not usable):
            lacks = "one process, not for several" if several else f"CUDA, not for device {self.device}"
            raise MonaiCaeError(f"compile graph is for {lacks}: leave --compile out")
        self._recording = usable and compile != "off" and not several
        self._graphs: CudaGraphs | None = None
        self._shapes: dict[str, _Shape] = {}
        self._rates: list[torch.Tensor] = []
        self._unseen = True  # the epoch is new
        self._images = 0  # whose gradients are added up

    def __call__(self, engine: SupervisedTrainer, batchdata: Any) -> Any:
        """
        Args:
            engine: the trainer, always the same.
            batchdata: what its `prepare_batch` takes.

        Returns:
            The trainer's output: `image`, `label`, `pred` and `loss`.

        Raises:
            MonaiCaeError: `compile` is "graph", and the step can't be recorded; or gradients are to be added up in a
                trainer with an amp or compile of its own.
        """
        outputs = None
        if self._recording:
            engine.network.train()
            self._look(engine)
        if self._recording:
            batch = _prepared(engine, batchdata)
            # instead of the last step's output: no node of autograd may be left, it belongs to the stream of its making
            engine.state.output = {CommonKeys.IMAGE: batch[0], CommonKeys.LABEL: batch[1]}
            outputs = self._do(engine, batch)
        if outputs is None:
            return (
                self._add_up(engine, batchdata)
                if engine.accumulation_steps > 1
                else engine._iteration(engine, batchdata)
            )
        # the next replay writes over its outputs, and handlers may keep them
        engine.state.output[CommonKeys.PRED] = each_tensor(outputs.pred, torch.clone)
        engine.state.output[CommonKeys.LOSS] = outputs.loss.clone()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _add_up(self, engine: SupervisedTrainer, batchdata: Any) -> Any:
        """One batch of a group; the last of the group, or of the epoch, makes the step."""
        if engine.amp or engine.compile:
            raise MonaiCaeError("accumulate is not for a trainer with an amp or compile of its own: leave one out")
        number, length = engine.state.iteration, engine.state.epoch_length
        number = (number - 1) % length + 1 if length else number
        inputs, targets, args, kwargs = _prepared(engine, batchdata)
        output = engine.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        engine.network.train()
        if number % engine.accumulation_steps == 1:
            engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
            self._images = 0
        output[CommonKeys.PRED] = engine.inferer(inputs, engine.network, *args, **kwargs)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        output[CommonKeys.LOSS] = engine.loss_function(output[CommonKeys.PRED], targets).mean()
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        (output[CommonKeys.LOSS] * len(inputs)).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._images += len(inputs)
        if number % engine.accumulation_steps == 0 or number == length:
            for parameter in engine.network.parameters():
                if parameter.grad is not None:
                    parameter.grad /= self._images
            engine.optimizer.step()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    def _look(self, engine: SupervisedTrainer) -> None:
        """Before an epoch, see to it that steps can be recorded, and drop those that no longer fit."""
        if not self._unseen:
            return
        if self._graphs is None:
            self._graphs = CudaGraphs(self.device)
            engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        self._unseen = False
        if obstacle := _obstacle(engine):
            self._give_up(obstacle)
            return
        for group in engine.optimizer.param_groups:
            group["capturable"] = True
        for state in engine.optimizer.state.values():
            if isinstance(step := state.get("step"), torch.Tensor):  # of an optimizer that had its steps elsewhere
                state["step"] = step.to(self.device, torch.float32)
        where = _where(engine)
        self._shapes = {key: one for key, one in self._shapes.items() if one.replay is None or one.where == where}

    def _epoch_started(self, engine: Engine) -> None:
        self._unseen = True

    def _do(self, engine: SupervisedTrainer, batch: Any) -> Outputs | None:
        """One step; nothing where it turns out that none can be recorded."""
        shape = self._shape_of(engine, batch)
        if shape is None or self._graphs is None:
            return None
        for own, given in zip(shape.inputs, _tensors(batch), strict=True):
            own.copy_(given)
        self._hold_rates(engine.optimizer)
        options = _options(engine.optimizer)
        if shape.replay is not None and shape.options != options:
            shape.replay, shape.steps = None, 0
        if shape.replay is None and shape.steps < WARM_UP:
            outputs = self._graphs.run(shape.work)
            shape.steps += 1
            if shape.steps == WARM_UP and self._graphs.waited:
                self._give_up("network, loss or optimizer wait for the GPU, as .item() does")
            return outputs
        if shape.replay is None:
            try:
                shape.replay = self._graphs.record(shape.work)
            except RuntimeError as error:
                engine.network.zero_grad(set_to_none=True)  # or the recording's own, which nobody has computed
                self._give_up(str(error).partition("\n")[0])
                return None
            shape.options, shape.where = options, _where(engine)
        outputs = shape.replay()
        for parameter, grad in zip(engine.network.parameters(), outputs.grads, strict=True):
            parameter.grad = grad  # or those of another shape's graph would be left
        return outputs

    def _shape_of(self, engine: SupervisedTrainer, batch: Any) -> _Shape | None:
        numbers: dict[int, int] = {}

        def described(tensor: torch.Tensor) -> tuple[Any, ...]:
            return numbers.setdefault(id(tensor), len(numbers)), tuple(tensor.shape), tensor.dtype

        key = repr(each_tensor(batch, described))  # has what is no tensor, too: a recording would keep it
        if key not in self._shapes:
            if len(self._shapes) == _MOST_SHAPES:
                self._give_up(f"batches have more than {_MOST_SHAPES} shapes")
                return None
            given = _tensors(batch)
            inputs = [torch.empty_like(one.as_subclass(torch.Tensor)) for one in given]
            own = each_tensor(batch, lambda tensor: inputs[numbers[id(tensor)]])
            self._shapes[key] = _Shape(inputs, partial(_step, engine, own))
        return self._shapes[key]

    def _hold_rates(self, optimizer: Optimizer) -> None:
        """Have every learning rate in a tensor of its own, where a recorded step finds it."""
        for number, group in enumerate(optimizer.param_groups):
            if number == len(self._rates):
                self._rates.append(torch.empty((), dtype=torch.float32, device=self.device))
            if group["lr"] is not self._rates[number]:
                self._rates[number].fill_(float(group["lr"]))
                group["lr"] = self._rates[number]

    def _give_up(self, reason: str) -> None:
        if self.compile == "graph":
            raise MonaiCaeError(f"compile graph: {reason}; leave --compile out to train without graphs")
        print(f"training without CUDA graphs: {reason}", flush=True)
        self._recording = False
        self._shapes = {}


@dataclass
class _Shape:
    """Batches of one shape, and what they are trained with.

    Args:
        inputs: tensors that a batch is copied to.
        work: a step on these.
        steps: done in the ordinary way.
        replay: the recorded step.
        options: of the optimizer, as recorded.
        where: see `_where`; as recorded.
    """

    inputs: list[torch.Tensor]
    work: Work
    steps: int = 0
    replay: Work | None = None
    options: Any = None
    where: Any = None


def _prepared(engine: SupervisedTrainer, batchdata: Any) -> tuple[Any, ...]:
    """Image, label, arguments and keyword arguments."""
    return filled(engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs))


def _step(engine: SupervisedTrainer, batch: Any) -> Outputs:
    """As SupervisedTrainer has it, without the events between the parts."""
    inputs, targets, args, kwargs = batch
    engine.optimizer.zero_grad(set_to_none=True)  # backward then makes them instead of adding to what was there
    pred = engine.inferer(inputs, engine.network, *args, **kwargs)
    loss = engine.loss_function(pred, targets).mean()
    loss.backward()
    engine.optimizer.step()
    grads = [parameter.grad for parameter in engine.network.parameters()]
    return Outputs(each_tensor(pred, torch.Tensor.detach), loss.detach(), grads)


def _tensors(batch: Any) -> list[torch.Tensor]:
    """Each once: an autoencoder's image is its target."""
    found: dict[int, torch.Tensor] = {}
    each_tensor(batch, lambda tensor: found.setdefault(id(tensor), tensor))
    return list(found.values())


def _obstacle(engine: SupervisedTrainer) -> str:
    """Why a trainer's steps can't be recorded; nothing if they can."""
    optimizer = engine.optimizer
    if any(engine._event_handlers.get(event) for event in _BETWEEN):
        return "a handler runs between the parts of a step"
    if engine.amp or engine.compile:
        return "the trainer has an amp or compile of its own"
    if engine.accumulation_steps > 1:
        return "the trainer accumulates gradients"
    if not all("capturable" in group for group in optimizer.param_groups):
        return f"{type(optimizer).__name__} has no capturable"
    return ""


def _where(engine: SupervisedTrainer) -> Any:
    """Where everything lies that a step reads and writes, and which way it goes: what a recorded step keeps."""
    modules = [one for one in (engine.network, engine.loss_function) if isinstance(one, nn.Module)]
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    states = [value for state in engine.optimizer.state.values() for value in state.values()]
    tensors += [value for value in states if isinstance(value, torch.Tensor)]
    return (
        [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors],
        [part.training for module in modules for part in module.modules()],
        [len(group["params"]) for group in engine.optimizer.param_groups],
        [id(engine.inferer), id(engine.loss_function)],
    )


def _options(optimizer: Optimizer) -> Any:
    """What a recorded step keeps of the optimizer's options: all but the learning rates."""
    return [[value for key, value in group.items() if key not in ("params", "lr")] for group in optimizer.param_groups]
